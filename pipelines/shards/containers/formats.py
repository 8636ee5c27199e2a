"""The container formats by their names."""

from . import recordio, tfrecord, webdataset

CONTAINERS = {container.name: container for container in (webdataset.CONTAINER, tfrecord.CONTAINER, recordio.CONTAINER)}
