"""Images and labels of a user's loader: batches, epochs, pixel spaces, transforms, splits, and shares of several processes."""
