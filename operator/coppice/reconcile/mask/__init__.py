"""The mask of a snapshot: a program of the store's owners changes the rows of the scratch copy, before anything is made
of it.

The copy is prepared as ever, then a server of its own runs on it, to which nobody but the owners' Job and the operator
has a way. What has happened to the copy is written on its claim before the Job can log in, and goes with the claim: the
Job waits for its Secret, which comes after that mark. So a copy that a mask may have touched is known as such whatever
was deleted, crashed or changed since. It is sealed only after the Job made for it has succeeded on the server made for
it, that server is gone, and a second preparation has rewritten it; everything else begins anew from the raw snapshot.
"""
