import pytest
import torch
from torch import nn

from runtime.errors import InputError, SaveError, ending_of
from runtime.launch.signals import Stopped
from runtime.run.rescue import Rescue
from runtime.saving.writer import BackgroundWriter


class Run:
    is_main, stop_requested = True, "SIGINT"

    def __init__(self):
        self.recorded, self.said, self.saves, self.waits = [], [], [], 0
        self.writer = BackgroundWriter()

    def record(self, event):
        self.recorded.append(event)

    def log(self, line):
        self.said.append(line)

    def saved(self, iteration, path):
        self.saves.append((iteration, path))

    def barrier(self):
        self.waits += 1


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        self.register_buffer("constant", torch.zeros(1), persistent=False)


def rescue_of(net=None, **how):
    saved = []

    def save(iteration):
        saved.append((iteration, net.norm.running_mean.tolist() if net else None))
        return f"it_{iteration}.pth"

    return Rescue(Run(), net, save, **how), saved


def broken(rescue, error):
    with pytest.raises(type(error)) as caught, rescue.watching():
        raise error
    return ending_of(caught.value)


def test_the_statistics_of_the_update_that_failed_are_taken_back_before_saving():
    net = Net()
    rescue, saved = rescue_of(net)
    rescue.begins()
    net.norm(torch.randn(4, 2, 3, 3))
    rescue.changes()
    rescue.done(1)
    before = net.norm.running_mean.tolist()
    rescue.begins()
    net.norm(torch.full((4, 2, 3, 3), float("nan")))
    text = broken(rescue, ValueError("odd"))
    assert text == ("The state after 1 update is saved in it_1.pth; --resume latest goes on from "
                    "there.")
    assert saved == [(1, before)]
    assert net.norm.num_batches_tracked == 1


def test_undo_takes_back_one_update_only():
    net = Net()
    rescue, _ = rescue_of(net)
    for _ in range(2):
        rescue.begins()
        net.norm(torch.randn(4, 2, 3, 3))
        kept = net.norm.running_var.clone()
    rescue.begins()
    net.norm(torch.randn(4, 2, 3, 3))
    rescue.undo()
    assert torch.equal(net.norm.running_var, kept)


def test_half_an_update_is_never_saved():
    rescue, saved = rescue_of()
    rescue.done(3)
    rescue.saved(3, "good.pth")
    rescue.changes()
    text = broken(rescue, ValueError("odd"))
    assert text.startswith("The update had begun to change the weights. The last good state, after "
                           "3 updates, is good.pth;")
    assert saved == []


def test_what_lies_on_the_disk_already_is_named_and_not_saved_again():
    rescue, saved = rescue_of(start=2, source="two.pth")
    assert broken(rescue, InputError("no such flag")) == (
        "The state is still that of two.pth.")
    rescue.done(4)
    rescue.saved(4, "four.pth")
    assert "after 4 updates, is four.pth" in broken(rescue, ValueError("odd"))
    rescue.done(5)
    assert "after 5 updates is saved in it_5.pth" in broken(rescue, ValueError("odd"))
    assert [iteration for iteration, _ in saved] == [5]


def test_a_full_disk_is_not_written_to_again():
    rescue, saved = rescue_of()
    rescue.done(4)
    assert broken(rescue, SaveError("disk full")) == "No state had been saved before."
    assert saved == []


def test_a_state_that_cannot_be_saved_does_not_hide_the_first_fault():
    def save(iteration):
        raise SaveError("disk full")

    rescue = Rescue(Run(), None, save)
    rescue.done(4)
    text = broken(rescue, ValueError("odd"))
    assert text == "The state could not be saved (disk full). No state had been saved before."


def test_other_ranks_and_dry_runs_save_nothing():
    rescue, saved = rescue_of()
    rescue._run.is_main = False
    rescue.done(4)
    assert broken(rescue, ValueError("odd")) == ""
    assert saved == []
    dry = rescue_of(is_dry=True)[0]
    dry.done(4)
    assert broken(dry, ValueError("odd")) == ""


@pytest.mark.parametrize("wanted", [True, False])
def test_leaving_saves_says_where_and_waits_for_the_others(wanted):
    rescue, saved = rescue_of(lost_by=() if wanted else ("SIGINT",))
    run = rescue._run
    rescue.done(7)
    run.stop_requested = None
    rescue.leave_if_stopped()
    run.stop_requested = "SIGINT"
    with pytest.raises(Stopped) as stop, rescue.watching():
        rescue.leave_if_stopped()
    assert stop.value.status == 130
    assert run.waits == 1
    assert run.recorded == [{"event": "stop", "iteration": 7, "reason": "SIGINT"}]
    assert [iteration for iteration, _ in saved] == ([7] if wanted else [])
    assert run.said == (["Stopped by SIGINT. The state after 7 updates is saved in it_7.pth; "
                         "--resume latest goes on from there."] if wanted else [])


def test_after_a_whole_update_nothing_is_taken_back():
    """A damaged picture, a dead worker, a failing validation come between two updates."""
    net = Net()
    rescue, saved = rescue_of(net)
    rescue.begins()
    net.norm(torch.randn(4, 2, 3, 3))
    rescue.changes()
    rescue.done(1)
    after = net.norm.running_mean.tolist()
    broken(rescue, InputError("a.jpg: truncated"))
    assert saved == [(1, after)]


def test_what_a_stop_has_saved_is_not_saved_again():
    """A peer is lost while the others wait for it to leave."""
    rescue, saved = rescue_of()

    def lose():
        raise RuntimeError("peer lost")

    rescue._run.barrier = lose
    rescue.done(5)
    with pytest.raises(RuntimeError) as caught, rescue.watching():
        rescue.leave_if_stopped()
    assert ending_of(caught.value) == (
        "The last good state, after 5 updates, is it_5.pth; --resume latest goes on from there.")
    assert len(saved) == len(rescue._run.recorded) == 1


def test_the_run_is_told_where_each_state_lies():
    run = Run()
    rescue = Rescue(run, save=lambda iteration: f"state_{iteration}")
    rescue.saved(2, "state_2")
    rescue.done(3)
    with pytest.raises(Stopped):
        rescue.leave_if_stopped()
    assert run.saves == [(2, "state_2"), (3, "state_3")]


def test_a_bar_shows_how_far_an_evaluation_is():
    class Bar:
        count = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.count = None

        def update(self):
            self.count += 1

    class Evaluating(Run):
        world_size, stop_requested = 2, None

        def progress(self, total, initial=0, what=""):
            self.bar, self.asked = Bar(), (total, what)
            return self.bar

        def in_step(self, batches, total, batch_size):
            return batches

    run = Evaluating()
    seen = [(batch, run.bar.count) for batch in Rescue(run, None, None).in_step(
        iter("abc"), 11, 2)]
    assert run.asked == (3, "validation")  # of two ranks with batches of two
    assert seen == [("a", 0), ("b", 1), ("c", 2)]
    assert run.bar.count is None
