# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever finds abuse finds whom to tell."""

from world import Visitor

LINK = '<a href="mailto:abuse@proxme.test">abuse@proxme.test</a>'


def test_our_pages_say_whom_to_tell(visitor: Visitor, domain: str) -> None:
    for url, status in ((f"https://{domain}/", 200), (f"http://guest-nobody.{domain}/", 404)):
        answer = visitor.get(url)
        assert answer.status == status
        assert LINK in answer.body
