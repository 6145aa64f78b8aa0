#!/usr/bin/env python3
"""What `promises.py` has to find, and what it must not take for it."""
import unittest

from promises import Answer, Compared, fell_in_the_log, sent_too_far_back, two_writers

OLD, NEW = "10.0.0.1:10911", "10.0.0.2:10911"
# What stands in queue 0: what the old master acknowledged, one without an answer, what the new one acknowledged at 5 s.
FOUND = {0: {0: 1, 1: 99, 2: 3}}
COPIES = dict.fromkeys(FOUND[0].values(), 1)


def compared(lost=(), found=None, copies=None):
    return Compared(found or FOUND, list(lost), [], [], COPIES if copies is None else copies)


class TwoWriters(unittest.TestCase):
    @staticmethod
    def found(offset, sent):
        """With a message of the old master's that is lost, by its offset and when it was sent."""
        answers = {1: Answer(OLD, 0, 1, 1.1), 2: Answer(OLD, 0, sent, sent + 0.1), 3: Answer(NEW, 4, 4.9, 5)}
        return len(list(two_writers(compared([(0, offset, 2)]), answers)))

    def test_what_was_taken_after_the_new_master_acknowledged_is_found(self):
        self.assertEqual(self.found(offset=1, sent=5.5), 1)

    def test_a_tail_that_died_with_its_master_is_none(self):
        self.assertEqual(self.found(offset=1, sent=2), 0)

    def test_what_was_on_its_way_when_the_new_master_acknowledged_is_none(self):
        self.assertEqual(self.found(offset=1, sent=4.95), 0)

    def test_behind_the_end_nobody_else_wrote(self):
        self.assertEqual(self.found(offset=3, sent=5.5), 0)


class Offsets(unittest.TestCase):
    def test_a_consumer_may_be_sent_to_what_is_lost_only(self):
        self.assertEqual(list(sent_too_far_back([(0, 3, 1, 2), (0, 3, 3, None)], FOUND)), [])
        self.assertEqual(len(list(sent_too_far_back([(0, 3, 0, 1)], FOUND))), 1)

    def test_a_commit_falls_only_with_all_that_came_after_it(self):
        def count(since, sent, copies):
            answers = {1: Answer(OLD, since, sent, sent + 0.1)}
            # Committed at 1 s over a connection to the old master, and not known at 9 s.
            fallen = [(0, 10, Answer(OLD, 0, 0.9, 1), 5, 9)]
            return len(list(fell_in_the_log(fallen, compared(copies=copies), answers)))

        self.assertEqual(count(since=0, sent=2, copies={1: 1}), 1)
        self.assertEqual(count(since=0, sent=2, copies={}), 0, "it is lost as well")
        self.assertEqual(count(since=0, sent=0.5, copies={1: 1}), 0, "it came before")
        self.assertEqual(count(since=1.5, sent=2, copies={1: 1}), 0, "perhaps that master had been one of the past")


if __name__ == "__main__":
    unittest.main()
