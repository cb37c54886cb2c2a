"""What happens between the workers and the server, and to the workers' clocks."""

from tests.chaos.stage import Stage


def slow_down(stage: Stage) -> None:
    """Each reply comes late, for some workers or for all: too late, perhaps, so that a call is repeated."""
    seconds = stage.rng.choice([0.02, 0.2, 1.2])
    for proxy in stage.rng.sample(stage.proxies, stage.rng.choice([1, 2])):
        proxy.delay_seconds = seconds
        stage.after(stage.rng.uniform(0.5, 2.0), lambda proxy=proxy: setattr(proxy, "delay_seconds", 0.0))  # type: ignore[misc]


def cut_replies(stage: Stage) -> None:
    """Connections end in the middle of a reply: nobody knows whether the call was done."""
    stage.rng.choice(stage.proxies).cut_replies(stage.rng.choice([1, 2, 5]))


def partition(stage: Stage) -> None:
    """Some workers reach the server no more; what they have sent arrives when the network is back."""
    proxy = stage.rng.choice(stage.proxies)
    proxy.partition()
    stage.after(stage.rng.uniform(0.5, 3.0), proxy.heal)


def reset_connections(stage: Stage) -> None:
    for proxy in stage.proxies:
        proxy.reset()


def jump_clock(stage: Stage) -> None:
    """The clock of the workers' machine is set, by up to a day, back or forth."""
    hours = stage.rng.choice([-24, -1, -0.01, 0.01, 1, 24])
    stage.clock.write_text(str(hours * 3600))
