"""The seeds' three users, a shop, a hospital and a court, played through with the shipped model."""
