"""Download, verify and unpack files from the web. Downloads resume, archives are not trusted.

`download.fetch` is the entry point. Not pooch (1.9), which verifies hashes and retries, but starts each try at byte 0
(no Range), keeps nothing of a partial file, supports one address per file, does not check free disk space, and cannot
stop in the middle of a 131 GB archive.
"""
