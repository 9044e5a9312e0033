"""Files of unknown origin, looked at before torch opens them: whole, of honest size, harmless."""
