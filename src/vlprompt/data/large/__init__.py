"""Very many images: ImageNet-21K's folders and tar shards, listed and read without opening every file."""
