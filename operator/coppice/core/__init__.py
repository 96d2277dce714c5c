"""The pure heart: what is observed, what is planned, and the words both are written in."""
