"""Images and labels of a user's loader: batches, pixel spaces, transforms, splits, and shares of several processes."""
