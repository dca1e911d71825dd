"""From looks to alarms and proposals."""

from datetime import UTC, datetime, timedelta

import pytest

from ml_pipeline.watching.decisions import Look, Policy, Verdict, decide

DAY = timedelta(days=1)
POLICY = Policy()


def look(number: int, p: float = 0.5, accuracy: float = 0.8, photos: int = 200, model: str = "m") -> Look:
    at = datetime(2026, 1, 1, tzinfo=UTC) + number * DAY
    return Look(number, at, photos, p, POLICY.level(DAY), model, accuracy, accuracy - 0.04, accuracy + 0.04)


def verdict(*looks: Look, quiet_until: datetime | None = None) -> Verdict:
    return decide(looks[-1], looks[:-1], 0.8, quiet_until, POLICY).verdict


def test_no_change_is_quiet() -> None:
    assert verdict(look(0)) is Verdict.QUIET


def test_one_changed_window_is_an_alarm_and_two_are_a_proposal() -> None:
    changed = [look(number, p=0.0005, accuracy=0.6) for number in range(2)]
    assert verdict(changed[0]) is Verdict.ALARM
    assert verdict(*changed) is Verdict.PROPOSAL


def test_a_quiet_window_between_two_changed_ones_starts_over() -> None:
    assert verdict(look(0, 0.0005, 0.6), look(1), look(2, 0.0005, 0.6)) is Verdict.ALARM


def test_a_window_with_too_few_photos_neither_counts_nor_interrupts() -> None:
    few = look(1, p=1.0, photos=3)
    found = decide(few, [], 0.8, None, POLICY)
    assert found.verdict is Verdict.TOO_FEW
    assert "too few photos: 3" in found.reason
    assert verdict(look(0, 0.0005, 0.6), few, look(2, 0.0005, 0.6)) is Verdict.PROPOSAL


def test_a_change_that_costs_no_accuracy_is_shown_and_not_acted_on() -> None:
    assert verdict(look(0, 0.0005, 0.81), look(1, 0.0005, 0.79)) is Verdict.ALARM


def test_a_new_model_needs_two_windows_of_its_own() -> None:
    assert verdict(look(0, 0.0005, 0.6, model="old"), look(1, 0.0005, 0.6)) is Verdict.ALARM


def test_no_second_proposal_while_it_cools_down() -> None:
    until = look(5).ended
    changed = [look(0, 0.0005, 0.6), look(1, 0.0005, 0.6)]
    assert verdict(*changed, quiet_until=until) is Verdict.ALARM
    assert verdict(*changed, quiet_until=look(0).ended) is Verdict.PROPOSAL


@pytest.mark.parametrize("hours", [1, 24, 24 * 7, 24 * 30])
def test_false_alarms_are_spent_by_time(hours: int) -> None:
    covered = timedelta(hours=hours)
    looks_a_year = timedelta(days=365) / covered
    level = POLICY.level(covered)
    assert level * looks_a_year <= POLICY.alarms_a_year + 1e-9
    assert level**2 * looks_a_year <= POLICY.proposals_a_year + 1e-9


def test_a_policy_that_never_errs_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Policy(alarms_a_year=0)
