"""How far quality that is estimated without labels is from the quality that labels show."""
