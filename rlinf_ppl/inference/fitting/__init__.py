"""What a fit is made of: guides, losses and their gradients, steps, the loop, and files."""
