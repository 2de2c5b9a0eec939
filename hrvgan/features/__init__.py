"""Networks that turn clips into feature arrays: refnet, C3D, I3D, Inception-v3."""
