"""What commands share: options, loading, messages, pictures."""
