"""`gon-edge fleet`: many workers that share the streams of one NATS JetStream, when one machine is outgrown.

Messages of devices are partitioned by the server into subjects ``fleet.PARTITION.TOPIC LEVELS``; `names` has every
stream, bucket, consumer and key, and the shape of what is kept under each.  Who owns a partition the server decides.

May import: everything below.  Must never be needed by another room: the table of commands names `command` as text.
Only this room knows NATS.
"""
