"""Publishing of models: folders with a model card, uploads to the Hugging Face Hub, and exports to other runtimes."""
