"""The living path: a sound card on one side, a line to others on the other, and the loop that joins them."""
