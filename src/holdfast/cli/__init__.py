"""The `holdfast` command: parse, call, print.

One module per command, found by the table in ``main``; nothing here decides
anything about storage. A command imports what it needs when it runs, so that
`holdfast --help` costs no more than reading the table. Errors a user can act
on end as one line on standard error and exit code 1; wrong usage ends as 2.
"""
