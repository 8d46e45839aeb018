"""The default recipe: composed frames, frames on the way, and a critic for photographs."""
