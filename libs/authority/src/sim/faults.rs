//! What goes wrong.

use std::time::Duration;

use super::random::Random;
use super::schedule::Favourite;

/// What is broken at the moment, beside crashed and paused processes.
pub(super) struct Network {
    /// `cut[from][to]`: nothing arrives. The last row and column are the authority's.
    cut: Vec<Vec<bool>>,
    /// Messages take up to this long.
    pub(super) delay: Duration,
    /// One in so many messages is lost; 0: none.
    pub(super) loss: u64,
}

impl Network {
    pub(super) fn new(replicas: usize) -> Self {
        let cut = vec![vec![false; replicas + 1]; replicas + 1];
        Self { cut, delay: Duration::from_millis(5), loss: 0 }
    }

    pub(super) fn mend(&mut self) {
        *self = Self::new(self.cut.len() - 1);
    }

    pub(super) fn authority(&self) -> usize {
        self.cut.len() - 1
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from][to]
    }

    /// How long a message takes, or nothing where it does not arrive.
    pub(super) fn passage(&self, from: usize, to: usize, random: &mut Random) -> Option<Duration> {
        let is_lost = self.loss > 0 && random.one_in(self.loss);
        let delay = random.millis(0, self.delay.as_millis() as u64);
        (!is_lost && !self.cut[from][to]).then_some(delay)
    }
}

/// One thing that goes wrong, or is asked for.
#[derive(Debug)]
pub(super) enum Fault {
    Kill {
        node: usize,
    },
    PowerLoss {
        node: usize,
    },
    PowerLossOfAll,
    Pause {
        node: usize,
        length: Duration,
    },
    /// A machine is paused, and its clock with it.
    Suspend {
        node: usize,
        length: Duration,
    },
    /// A clock says that more time has passed than has.
    Jump {
        node: usize,
        by: Duration,
    },
    /// Some connections cut, in one direction or both.
    Cut {
        pairs: Vec<(usize, usize)>,
    },
    /// From the authority, and a while later from the peers.
    CutInSteps {
        node: usize,
    },
    Slow {
        delay: Duration,
        loss: u64,
    },
    Mend,
    /// Whoever swaps the record next gets no answer, may not be heard any more, and is killed
    /// within 3 s.
    Ambush,
    HandOver,
    /// A process is told to end.
    End {
        node: usize,
    },
    /// The configuration of the group is to be another one.
    Configure,
    /// Somebody deletes the lease, and this node is cut off.
    DeleteLease {
        alone: usize,
    },
    /// Reads may find what stood there before.
    StaleReads,
    /// A disk or a link that takes nothing of what the master sends, while reports pass.
    Lag {
        node: usize,
        length: Duration,
    },
    /// The master reaches one slave only, and that one now and then.
    Flap {
        master: usize,
        slave: usize,
        from_authority: bool,
        /// Whether the slave does not reach the authority either.
        both: bool,
    },
    /// So many masters in turn, each cut off from its peers when it has just begun, or a while later.
    Succession {
        masters: u32,
    },
    /// Somebody takes away segments of a replica's log, the newest image with them.
    TakeImageAway {
        node: usize,
    },
    Record(Damage),
}

/// What may go wrong beside crashes and the network.
pub(super) struct Kind {
    pub(super) is_damaged: bool,
    pub(super) is_changing: bool,
    /// Whether logs part often: a quorum acknowledges, or cuts are what is looked at.
    pub(super) parts_logs: bool,
    pub(super) takes_images_away: bool,
    pub(super) clocks_jump: bool,
    pub(super) favourite: Option<Favourite>,
}

/// What somebody does to the record.
#[derive(Debug)]
pub(super) enum Damage {
    Restore,
    Delete,
    PutBack,
    /// To what it was before the others went on without this replica, which then is the only one
    /// that hears of it.
    Fork {
        late: usize,
    },
}

impl Fault {
    /// `leading` may be hit more often than others.
    pub(super) fn random(
        replicas: usize,
        leading: Option<usize>,
        Kind { is_damaged, is_changing, parts_logs, takes_images_away, clocks_jump, favourite }: Kind,
        random: &mut Random,
    ) -> Self {
        let node = random.below(replicas as u64) as usize;
        match favourite.filter(|_| random.one_in(2)) {
            Some(Favourite::Ambushes) => return Self::Ambush,
            Some(Favourite::Flaps) if replicas > 2 => {
                return Self::flap(replicas, leading.unwrap_or(node), random);
            }
            Some(Favourite::Changes) if is_changing => return Self::Configure,
            Some(Favourite::Damage) if is_damaged => {
                return match random.below(4) {
                    0 => Self::Record(Damage::Restore),
                    1 => Self::Record(Damage::Fork { late: node }),
                    2 => Self::PowerLoss { node: leading.unwrap_or(node) },
                    _ => Self::Kill { node },
                };
            }
            Some(_) | None => {}
        }
        if parts_logs && random.one_in(4) {
            return Self::that_parts_logs(replicas, leading.unwrap_or(node), random);
        }
        if takes_images_away && random.one_in(4) {
            return Self::TakeImageAway { node };
        }
        if clocks_jump && random.one_in(5) {
            let node = leading.filter(|_| random.one_in(2)).unwrap_or(node);
            return match random.one_in(2) {
                true => Self::Suspend { node, length: random.millis(500, 15_000) },
                false => Self::Jump { node, by: random.millis(500, 60_000) },
            };
        }
        let leading = leading.filter(|_| random.one_in(2));
        if is_changing && random.one_in(6) {
            return Self::Configure;
        }
        if is_damaged && random.one_in(8) {
            return Self::Record(match random.below(12) {
                0 => Damage::Delete,
                8.. => Damage::Fork { late: node },
                1..=3 => Damage::PutBack,
                _ => Damage::Restore,
            });
        }
        let authority = replicas;
        match random.below(18) {
            0 | 1 => Self::Kill { node },
            2 => Self::PowerLoss { node },
            3 if random.one_in(3) => Self::PowerLossOfAll,
            3 | 4 => {
                Self::Pause { node: leading.unwrap_or(node), length: random.millis(500, 15_000) }
            }
            // From everybody, from the peers, or from the authority.
            5 | 6 => {
                let others = (0..=replicas).filter(|other| *other != node);
                let kind = random.below(3);
                let is_cut = |other: &usize| match kind {
                    0 => true,
                    1 => *other != authority,
                    _ => *other == authority,
                };
                let cut: Vec<_> = others.filter(is_cut).collect();
                let both = cut.iter().flat_map(|&other| [(node, other), (other, node)]);
                let direction = random.below(4);
                let is_kept = |(from, _): &(usize, usize)| match direction {
                    0 => *from == node,
                    1 => *from != node,
                    _ => true,
                };
                Self::Cut { pairs: both.filter(is_kept).collect() }
            }
            7 => {
                let all = (0..replicas).flat_map(|node| [(node, authority), (authority, node)]);
                Self::Cut { pairs: all.collect() }
            }
            8 => Self::Slow { delay: random.millis(20, 3_000), loss: random.below(2) * 4 },
            9 | 10 => Self::Mend,
            11 => Self::Ambush,
            12 => Self::StaleReads,
            14 => Self::DeleteLease { alone: leading.unwrap_or(node) },
            13 => Self::CutInSteps { node: leading.unwrap_or(node) },
            15 | 16 => Self::End { node },
            _ => Self::HandOver,
        }
    }
}

impl Fault {
    fn flap(replicas: usize, master: usize, random: &mut Random) -> Self {
        let slave = (master + 1 + random.below(replicas as u64 - 1) as usize) % replicas;
        let from_authority = !random.one_in(4);
        Self::Flap { master, slave, from_authority, both: from_authority && random.one_in(2) }
    }

    /// What has some replicas write what others do not get, and so shows who counts where a quorum
    /// acknowledges.
    fn that_parts_logs(replicas: usize, master: usize, random: &mut Random) -> Self {
        let other = (master + 1 + random.below(replicas as u64 - 1) as usize) % replicas;
        match random.below(4) {
            0 => Self::Succession { masters: 2 + random.below(5) as u32 },
            1 => Self::flap(replicas, master, random),
            _ => Self::Lag { node: other, length: random.millis(500, 20_000) },
        }
    }
}

impl Network {
    /// Everybody reaches everybody, as slowly as before.
    pub(super) fn join(&mut self) {
        let (delay, loss) = (self.delay, self.loss);
        self.mend();
        (self.delay, self.loss) = (delay, loss);
    }

    /// Cuts both directions between a node and these others.
    pub(super) fn part(&mut self, node: usize, others: impl Iterator<Item = usize>) {
        others.filter(|other| *other != node).for_each(|other| {
            self.cut[node][other] = true;
            self.cut[other][node] = true;
        });
    }

    /// Cuts both directions between two, or has them reach each other.
    pub(super) fn set(&mut self, (one, other): (usize, usize), is_cut: bool) {
        self.cut[one][other] = is_cut;
        self.cut[other][one] = is_cut;
    }

    pub(super) fn cut(&mut self, pairs: &[(usize, usize)]) {
        pairs.iter().for_each(|&(from, to)| self.cut[from][to] = true);
    }
}
