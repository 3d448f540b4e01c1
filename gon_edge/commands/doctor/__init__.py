"""What is wrong with an installation, and what to do about it: ``gon-edge doctor``.

`examine` asks all checks; each looks at one subject (`service`, `broker`, `files`, `machine`) and yields findings.
Looks from outside, as the person who runs it: nothing is changed, and neither the daemon's session at the broker nor
its lock is touched.
"""
