# SPDX-License-Identifier: GPL-3.0-or-later
"""ask.lua: for which names the front end may order a certificate, and what the ledger of them remembers."""

from __future__ import annotations

import lupa.luajit21
import pytest
from nginx import AUTHORITY, DAY, DOMAIN, NOON

WEEK = 7 * DAY
REMEMBERED = 90 * DAY
OTHER = "https://other.example/directory"
NO_TUNNEL = "not the name of a live tunnel"
USED_UP = "the certificates of this day or week are used up"


@pytest.fixture
def names(nginx):
    """Ten names of live tunnels. Three of them may have a certificate in a day, five in a week."""
    names = [f"guest-{number}" for number in range(10)]
    nginx.listen(*(f"{name}:80" for name in names))
    return names


def written(nginx) -> list[list[str]]:
    """The ledger's lines in their fields."""
    return [line.split(" ") for line in nginx.ledger.read_text().splitlines()] if nginx.ledger.exists() else []


def keep(nginx, *lines: str) -> None:
    """Start with a ledger of these lines."""
    nginx.ledger.write_text("".join(f"{line}\n" for line in lines))
    nginx.restart()


# Whose name it is.


@pytest.mark.parametrize("label", ["8080", "8080--local", "guest-x", "guest-x--local", "guest-tls", "g" * 63])
def test_the_name_of_a_live_tunnel_gets_a_certificate(nginx, label):
    nginx.listen("8080", "guest-x:80", "guest-tls:443", f"{'g' * 63}:80")
    assert nginx.ask(f"{label}.{DOMAIN}") == (200, "yes")
    assert written(nginx) == [[str(NOON), label, str(NOON), AUTHORITY]]


@pytest.mark.parametrize(
    "domain",
    [
        *(
            "",
            DOMAIN.upper(),
            f".{DOMAIN}",
            f"x{DOMAIN}",
            "example.com",
            "127.0.0.1",
            "guest-x",
            f"{DOMAIN}.example.com",
        ),
        *(f"{label}.{DOMAIN}" for label in ("guest-nobody", "9090", "guest-other-port", "a.guest-x", "a.b", "*")),
        *(f"{label}.{DOMAIN}" for label in ("08080", "73616", "0", "65536", "8080-", "guest--x", "GUEST-X", "guest_x")),
        *(f"{label}.{DOMAIN}" for label in ("guest-x--local--local", "--local", "www", "public", "localhost")),
        *(f"{label}.{DOMAIN}" for label in ("guest-phish", "guest-phish--local", "8666", "8666--local")),
        *(f"guest-x--local{port}.{DOMAIN}" for port in ("-0", "-08000", "-65536", "-", "8000", "-8000--local")),
        *(f"{label}--local-8000.{DOMAIN}" for label in ("guest-nobody", "guest-phish", "www", "8666")),
        *(f"guest-x.{DOMAIN}.", f"guest-x.{DOMAIN}.example.com", f"guest-x%2e{DOMAIN}", "unknown.example.org"),
        *("shop.example.org", "a.shop.example.org", "phish.example.org"),
    ],
)
def test_nothing_else_gets_one_or_costs_anything(nginx, domain):
    nginx.listen("8080", "guest-x:80", "guest-other-port:8080", "www:80", "public:80", "localhost:80")
    nginx.listen("guest-phish:80", "8666")
    assert nginx.ask(domain) == (403, NO_TUNNEL)
    assert written(nginx) == []


def test_a_name_gets_none_any_more_when_its_tunnel_has_ended(nginx):
    nginx.listen("guest-x:80")
    assert nginx.may("guest-x")
    nginx.end("guest-x:80")
    nginx.wait(2)
    assert not nginx.may("guest-x")


def test_the_bare_domain_always_gets_one(nginx):
    nginx.setting("certificates_per_day", 0)
    assert nginx.ask(DOMAIN) == (200, "yes")
    assert written(nginx) == []


def test_a_question_without_a_domain_is_refused(nginx):
    reply = nginx.run("content", nginx.request(target="/"), nginx.worker.ask.answer)
    assert (reply.status, reply.body) == (403, f"{NO_TUNNEL}\n")


def test_where_one_certificate_is_for_all_names_only_custom_domains_get_their_own(nginx):
    nginx.setting("own_certificates", False)
    nginx.listen("8080", "guest-x:80", "guest-always:80", "shop:80")
    for domain in (DOMAIN, *(f"{label}.{DOMAIN}" for label in ("8080", "guest-x", "guest-always", "shop", "a.b"))):
        assert nginx.ask(domain) == (403, "one certificate is for all of our own names"), domain
    assert nginx.ask("shop.example.org") == (200, "yes")
    nginx.end("shop:80")
    nginx.wait(2)
    assert nginx.ask("shop.example.org") == (403, NO_TUNNEL)


def test_whose_tls_is_passed_through_gets_none_here(nginx):
    nginx.listen("shop:80", "shop:443")
    assert nginx.ask("shop.example.org") == (200, "yes")
    assert nginx.ask("tls.example.org") == (403, "the tunnel has a certificate of its own")


# The budget.


def test_a_day_has_so_many_and_not_one_more(nginx, names):
    assert [nginx.may(name) for name in names[:5]] == [True, True, True, False, False]
    assert nginx.ask(f"{names[3]}.{DOMAIN}") == (403, USED_UP)
    assert nginx.log[-1] == f"warn: no certificate for {names[3]}.{DOMAIN}: {USED_UP} (3, 5)"
    assert [line[1] for line in written(nginx)] == names[:3]


def test_a_day_ends_24_hours_after_each_certificate(nginx, names):
    for hour, name in zip((0, 10, 20), names, strict=False):
        nginx.now = NOON + hour * 3600
        assert nginx.may(name)
    nginx.now = NOON + DAY - 1
    assert not nginx.may(names[3])
    nginx.now = NOON + DAY
    assert nginx.may(names[3])
    assert not nginx.may(names[4]), "the second one's day is not over"


def test_a_week_has_so_many_and_not_one_more(nginx, names):
    for day, granted in enumerate((3, 2, 0, 0, 0, 0, 0)):
        nginx.now = NOON + day * DAY
        asked = names[day * 3 : day * 3 + 3]
        assert [nginx.may(name) for name in asked] == [True] * granted + [False] * (len(asked) - granted), day
    nginx.now = NOON + WEEK - 1
    assert not nginx.may(names[9])
    nginx.now = NOON + WEEK
    assert [nginx.may(name) for name in names[6:]] == [True, True, True, False]


def test_without_a_budget_there_is_no_certificate(nginx, names):
    for budget in ("certificates_per_day", "certificates_per_week"):
        nginx.setting(budget, 0)
        assert not nginx.may(names[0])
        nginx.setting(budget, 3)
    assert nginx.may(names[0])


def test_custom_domains_and_names_of_the_operators_choice_cost_nothing(nginx, names):
    nginx.listen("shop:80", "guest-always:80")
    for _ in range(4):
        assert nginx.ask("shop.example.org")[0] == 200
        assert nginx.may("guest-always")
    assert written(nginx) == []
    assert [nginx.may(name) for name in names[:4]] == [True, True, True, False]
    assert nginx.ask("shop.example.org")[0] == 200
    assert nginx.may("guest-always")


def test_a_custom_domain_does_not_make_the_tunnels_own_name_free(nginx, names):
    nginx.listen("shop:80")
    nginx.setting("certificates_per_day", 0)
    assert nginx.ask("shop.example.org")[0] == 200
    assert not nginx.may("shop")


def test_a_known_name_is_renewed_when_all_is_used_up(nginx, names):
    assert [nginx.may(name) for name in names[:4]] == [True, True, True, False]
    for day in (0, 1, 8, 30):
        nginx.setting("certificates_per_day", 0)
        nginx.now = NOON + day * DAY
        assert [nginx.may(name) for name in names[:4]] == [True, True, True, False], day


def test_a_name_under_local_is_another_one(nginx, names):
    nginx.setting("certificates_per_day", 1)
    assert nginx.may(names[0])
    assert not nginx.may(f"{names[0]}--local")


@pytest.mark.parametrize("name", ["guest-0", "8080"])
def test_a_stranger_cannot_spend_the_budget_with_the_ports_of_local(nginx, names, name):
    """65535 of them, and a visitor writes any: a name has three in a week, and the name itself still has its own."""
    nginx.listen("8080")
    nginx.setting("certificates_per_day", 100)
    nginx.setting("certificates_per_week", 100)
    asked = [nginx.may(f"{name}--local-{port}") for port in range(8000, 8100)]
    assert asked == [True] * 3 + [False] * 97
    assert nginx.ask(f"{name}--local-9000.{DOMAIN}") == (403, USED_UP)
    assert [nginx.may(label) for label in (f"{name}--local-8001", f"{name}--local", name)] == [True, True, True]
    nginx.now = NOON + WEEK
    assert nginx.may(f"{name}--local-9000")


def test_with_many_names_a_stranger_can_spend_half_of_the_budget(nginx, names):
    """And leave the other half to whoever opens a tunnel."""
    for budget in ("certificates_per_day", "certificates_per_week"):
        nginx.setting(budget, 8)
    asked = [nginx.may(f"{name}--local-{port}") for name in names for port in (1, 2)]
    assert (asked.count(True), asked[:4]) == (4, [True] * 4)
    assert [nginx.may(name) for name in names[:5]] == [True] * 4 + [False]


def test_no_budget_goes_to_a_label_that_no_host_can_have(nginx, names):
    nginx.listen(f"{'g' * 56}:80", f"{'g' * 57}:80", f"{'g' * 51}:80", f"{'g' * 52}:80")
    for label in ("g" * 57 + "--local", "g" * 52 + "--local-8000"):
        assert nginx.ask(f"{label}.{DOMAIN}") == (403, "no host name has a label of more than 63")
    assert written(nginx) == []
    nginx.setting("certificates_per_day", 4)
    assert (nginx.may("g" * 56 + "--local"), nginx.may("g" * 51 + "--local-8000")) == (True, True)


def test_a_renewal_is_nothing_new(nginx, names):
    """Whether the ledger took note of it or not."""
    nginx.setting("certificates_per_week", 2)
    assert nginx.may(names[0])
    for day in (8, 9):
        nginx.now = NOON + day * DAY
        assert nginx.may(names[0])
        assert nginx.may(names[day - 7])
    nginx.restart()
    assert not nginx.may(names[3])


# How long a name is known.


def test_a_name_is_forgotten_90_days_after_the_last_question(nginx, names):
    assert nginx.may(names[0])
    nginx.setting("certificates_per_day", 0)
    nginx.now = NOON + 80 * DAY
    assert nginx.may(names[0])
    nginx.now += REMEMBERED - 1
    assert nginx.may(names[0])
    nginx.now += REMEMBERED + 1
    assert not nginx.may(names[0])


@pytest.mark.parametrize("restarted", [False, True])
def test_a_name_that_nobody_asks_for_is_forgotten(nginx, names, restarted):
    assert nginx.may(names[0])
    nginx.setting("certificates_per_day", 0)
    nginx.now = NOON + REMEMBERED + 1
    if restarted:
        nginx.restart()
    assert not nginx.may(names[0])


def test_a_visited_name_adds_a_line_a_week_and_no_more(nginx, names):
    for hour in range(7 * 24 + 1):
        nginx.now = NOON + hour * 3600
        assert nginx.may(names[0])
    assert written(nginx) == [[str(NOON), names[0], str(NOON), AUTHORITY]]
    nginx.now = NOON + WEEK + 1
    for _ in range(3):
        assert nginx.may(names[0])
    assert written(nginx)[1:] == [[str(NOON), names[0], str(NOON + WEEK + 1), AUTHORITY]]


# The ledger.


@pytest.mark.parametrize("again", ["restart", "reload"])
def test_nothing_is_forgotten_by(nginx, names, again):
    assert [nginx.may(name) for name in names[:3]] == [True, True, True]
    before = nginx.ledger.read_text()
    nginx.now = NOON + 3600
    getattr(nginx, again)()
    assert nginx.ledger.read_text() == before
    assert [nginx.may(name) for name in names[3::-1]] == [False, True, True, True]
    nginx.now = NOON + DAY
    assert nginx.may(names[3])


def test_a_restart_remembers_the_last_question_and_the_first_certificate(nginx, names):
    """So a renewal costs nothing after it either, and the name is forgotten 90 days after the question."""
    assert nginx.may(names[0])
    nginx.now = asked = NOON + 80 * DAY
    assert nginx.may(names[0])
    nginx.restart()
    assert written(nginx) == [[str(NOON), names[0], str(asked), AUTHORITY]]
    assert [nginx.may(name) for name in names[1:5]] == [True, True, True, False], "the old one does not count"
    nginx.setting("certificates_per_day", 0)
    nginx.now = asked + REMEMBERED - 1
    nginx.restart()
    assert nginx.may(names[0])


OURS = f"{NOON} guest-0 {NOON} {AUTHORITY}"
LONG_AGO = NOON - 60 * DAY


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([OURS], [OURS]),
        # Said twice: the last line is right, in the place of the first.
        ([f"{LONG_AGO} guest-0 {day} {AUTHORITY}" for day in (LONG_AGO, NOON - DAY)] * 2 + [OURS], [OURS]),
        ([OURS, f"{NOON} guest-1 {NOON} {AUTHORITY}", OURS], [OURS, f"{NOON} guest-1 {NOON} {AUTHORITY}"]),
        # Too old, by the last question.
        ([f"{LONG_AGO} guest-0 {NOON - REMEMBERED} {AUTHORITY}"], []),
        (
            [f"{NOON - 300 * DAY} guest-0 {NOON - REMEMBERED + 1} {AUTHORITY}"],
            [f"{NOON - 300 * DAY} guest-0 {NOON - REMEMBERED + 1} {AUTHORITY}"],
        ),
        ([f"{NOON - REMEMBERED} guest-0"], []),
        # Of a former version.
        ([f"{LONG_AGO} guest-0"], [f"{LONG_AGO} guest-0 {LONG_AGO} {AUTHORITY}"]),
        # Another authority's, for the same name as well.
        ([f"{NOON} guest-0 {NOON} {OTHER}", OURS], [f"{NOON} guest-0 {NOON} {OTHER}", OURS]),
        # No such line.
        (["", " ", "guest-0", f"{NOON}", f"x{NOON} guest-0", f"-5 guest-0 {NOON} {AUTHORITY}", "\0\0\0"], []),
        (["garbage", OURS, "more garbage"], [OURS]),
        ([], []),
    ],
)
def test_at_the_start_the_ledger_is_shortened_to(nginx, lines, kept):
    keep(nginx, *lines)
    assert nginx.ledger.read_text() == "".join(f"{line}\n" for line in kept)
    assert [file.name for file in nginx.ledger.parent.iterdir()] == ["certificates"]
    assert nginx.log == []


def test_a_line_cut_short_at_the_end_is_as_good_as_a_former_versions(nginx, names):
    """A machine lost power: the name is known, and the next one has its own line after the next start."""
    nginx.ledger.write_text(f"{OURS}\n{NOON} guest-1 {NOON}")
    nginx.restart()
    assert nginx.may(names[2])
    assert [line[1] for line in written(nginx)] == ["guest-0", "guest-1", "guest-2"]


def test_the_lines_of_a_former_version_are_known_and_count(nginx, names):
    keep(nginx, *(f"{NOON - 3600} {name}" for name in names[:3]))
    assert [nginx.may(name) for name in names[3::-1]] == [False, True, True, True]


@pytest.mark.parametrize("authority", [OTHER, f"x{AUTHORITY}", f"{AUTHORITY}/", AUTHORITY[1:]])
def test_what_another_authority_was_asked_for_counts_neither_for_nor_against_a_name(nginx, names, authority):
    keep(nginx, *(f"{NOON} {name} {NOON} {authority}" for name in names[:5]))
    assert [nginx.may(name) for name in names[:4]] == [True, True, True, False]


def test_the_former_authority_is_remembered_for_when_it_is_the_authority_again(nginx, names):
    assert [nginx.may(name) for name in names[:4]] == [True, True, True, False]
    nginx.setting("authority", OTHER)
    nginx.restart()
    assert [nginx.may(name) for name in names[3:7]] == [True, True, True, False]
    nginx.setting("authority", AUTHORITY)
    nginx.restart()
    assert [nginx.may(name) for name in names[3::-1]] == [False, True, True, True]


def test_without_a_ledger_all_begins_again(nginx, names):
    assert not nginx.ledger.exists()
    assert nginx.log == []
    assert nginx.may(names[0])


# The ledger cannot be written. /dev/full takes nothing, as a full disk.


def test_on_a_full_disk_certificates_are_granted_and_counted_all_the_same(nginx, names):
    nginx.ledger.symlink_to("/dev/full")
    assert [nginx.may(name) for name in names[:4]] == [True, True, True, False]
    assert nginx.log[0] == f"error: cannot remember that {names[0]} may have a certificate: No space left on device"
    assert len(nginx.log) == 4
    assert nginx.may(names[0])


def test_a_ledger_that_cannot_be_opened_is_said(nginx, names):
    nginx.ledger.mkdir()
    assert nginx.may(names[0])
    (said,) = nginx.log
    assert said.startswith(f"error: cannot remember that {names[0]} may have a certificate: ")
    assert said.endswith(": Is a directory")


def test_on_a_full_disk_the_ledger_stays_as_it_is_and_is_read(nginx, names):
    lines = [f"{LONG_AGO} {names[0]} {LONG_AGO} {AUTHORITY}", "garbage", f"{NOON} {names[1]} {NOON} {AUTHORITY}"]
    nginx.ledger.with_name("certificates.new").symlink_to("/dev/full")
    keep(nginx, *lines)
    assert not nginx.ledger.is_symlink(), "what could not be written was put in the ledger's place"
    assert nginx.ledger.read_text().splitlines() == lines
    assert nginx.log == ["error: cannot shorten the list of certificates: No space left on device"]
    nginx.setting("certificates_per_day", 1)
    assert [nginx.may(name) for name in names[:3]] == [True, True, False]


def test_a_ledger_that_cannot_be_replaced_stays_as_it_is_and_is_read(nginx, names):
    """The folder is read-only, say."""
    nginx.ledger.with_name("certificates.new").mkdir()
    keep(nginx, "garbage", OURS)
    assert nginx.ledger.read_text() == f"garbage\n{OURS}\n"
    (said,) = nginx.log
    assert said.startswith("error: cannot shorten the list of certificates: ")
    nginx.setting("certificates_per_day", 0)
    assert nginx.may("guest-0")


# Several workers at once.


def at_once(nginx, *labels: str) -> list[bool]:
    """Whether labels get a certificate that are asked for at the same time, each of another worker."""
    work = [(nginx.request(target=f"/?domain={label}.{DOMAIN}"), nginx.new_worker().ask.answer) for label in labels]
    nginx.on_count("switch")
    return [reply.status == 200 for reply in nginx.together("content", *work)]


@pytest.mark.parametrize("left", [0, 1, 2])
def test_two_workers_do_not_both_grant_the_last_certificate(nginx, names, left):
    nginx.setting("certificates_per_day", left)
    assert sum(at_once(nginx, *names[:4])) == left
    assert len(written(nginx)) == left


def test_who_is_done_lets_the_next_one_count_at_once(nginx, names):
    """Both after a yes and after a no."""
    for name in names[:6]:
        nginx.may(name)
    assert nginx.now == NOON


def test_a_worker_that_dies_while_it_counts_holds_up_the_others_for_five_seconds(nginx, names):
    nginx.on_count("die")
    with pytest.raises(lupa.luajit21.LuaError, match="the worker dies"):
        nginx.may(names[0])
    nginx.on_count(None)
    assert nginx.may(names[1])
    assert NOON < nginx.now < NOON + 5.1


def test_the_first_visitors_of_a_name_may_come_to_several_workers(nginx, names):
    """The front end asks for each of them. What one of the workers grants with the last certificate, all do."""
    nginx.setting("certificates_per_day", 1)
    assert at_once(nginx, names[0], names[0], names[0], names[1]) == [True, True, True, False]
    assert [line[1] for line in written(nginx)] == [names[0]]
