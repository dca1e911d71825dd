"""S3 on the local disk: blobs as files, an SQLite index, and a WSGI app that speaks S3's REST protocol."""
