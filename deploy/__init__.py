"""What an operator deploys, and programs that show it."""
