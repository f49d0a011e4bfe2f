"""Where recordings come from: folders of sound, lists, tars."""
