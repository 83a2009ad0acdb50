"""The published claims of the family, tried in small on real images: stages of trainings, their scores and a table."""
