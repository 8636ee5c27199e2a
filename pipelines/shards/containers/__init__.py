"""The three containers of shards: WebDataset, TFRecord and RecordIO: writer, strict scanner and index of each."""
