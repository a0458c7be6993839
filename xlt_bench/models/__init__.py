"""Loads models and adapters, renders chats, and generates answers and hidden states."""
