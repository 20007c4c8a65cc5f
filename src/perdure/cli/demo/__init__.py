"""The demo: the SHA-256 of every file below a folder, one durable process per folder.

It is a program like any user's: `host` has the process, `walk` finds what is to be done, `run` starts and gathers,
`check` computes the same once more in another way.

What a fingerprint says (both ways of computing it agree on this and share nothing else):

* A field is written as a netstring: its length in decimal, a colon, its bytes, a comma.
* A folder's fingerprint is the SHA-256 of its entries in order of their names' bytes, sub-folders left out. An entry is
  three fields: kind, name, content. Kind `file`, content the file's SHA-256 (32 bytes); kind `link`, content where it
  points to (links are never followed); kind `other` (socket, pipe, device; never opened), content empty;
  kind `unreadable`, content empty. A folder that can't be listed has the one entry `unreadable` with an empty name.
* The whole fingerprint is the SHA-256 of all folders in order of their paths' bytes, relative to the top ("." is the
  top itself), two fields each: path and fingerprint (32 bytes).
"""
