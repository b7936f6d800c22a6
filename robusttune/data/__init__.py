"""Images and labels of a user's loader: batches, pixels, splits, shares of several processes."""
