"""What of the protocol is spoken, as data, each with the tests that show it: `python -m behaviours > docs/protocol.md`.

One file for each part of the page. A behaviour has

- `id`, in kebab-case, the same for ever;
- `says`, one sentence or two for readers;
- `eras`: of the client where it is about clients (parts 1 to 3, 5 to 7), of the server in part 4; `both` by default;
- `source`, the sentence's place in the specification: version, page, section; left out for a rule of our own;
- `unspoken`, the reason, where it is not done;
- `shown`, the tests, as `folder/test_file.py::test_name` below `tests`. What is not spoken has tests of how it is refused.
"""
