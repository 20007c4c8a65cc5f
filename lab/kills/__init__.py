"""Workers killed at named moments, and what must be true of what they leave behind."""
