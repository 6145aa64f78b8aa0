//! Bugs that can be switched on to see whether the simulation notices.
//!
//! Only this crate's own unit tests can switch one on; in every other build the question is a
//! constant.

/// A promise broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests switch bugs on"))]
pub(crate) enum Planted {
    /// The simulated broker appends and acknowledges whenever it thinks that it is master.
    AcknowledgeUnasked,
    /// Any replica campaigns.
    ElectOutsideTheSet,
    /// A member counts no more from when its leaving is asked for.
    ShrinkBeforeTheSwap,
    /// A member counts no more from when it says that it leaves.
    LeaveByWord,
    /// A member counts only from when its coming was answered (apache/rocketmq #5663).
    ExpandAfterTheSwap,
    /// The confirm offset moves without members that are not heard (apache/rocketmq #6662).
    ConfirmWithoutTheUnheard,
    /// A master acknowledges while others can be elected who do not get it.
    ServeBesideTheEligible,
    /// A replica obeys a record that was restored and changed.
    ObeyAnyHigherEpoch,
    /// A replica obeys a record of an epoch before the one that it promised.
    ObeyLowerEpochs,
    /// A restarted replica claims what it may have lost.
    ClaimLostBytes,
    /// A replica takes what a master sends without cutting its log first.
    FollowWithoutCut,
    /// A replica keeps one record of what its master's log does not have.
    CutTooLittle,
    /// A replica whose log is about to be cut goes on deciding and following until it is.
    FollowDuringTheCut,
    /// A replica whose log began anew claims what the log before it had.
    ClaimWhatBeganAnew,
    /// A slave forgets what was committed at it once it has passed that on, before it is in the log for good.
    ForgetWhatIsPassedOn,
    /// A new master says what is committed before its slaves have said what was committed at them.
    AnswerBeforeSlavesDid,
    /// Retention takes the newest image of the state as well.
    ExpireTheImage,
    /// The simulated broker acts on what it was told without a look at the clock.
    IgnoreUntil,
    /// The simulated broker does not wait until a promise is durable.
    ActBeforeThePromise,
    /// Who followed a moment ago campaigns at once.
    CampaignAtOnce,
    /// Where a quorum acknowledges, a candidate asks nobody.
    ElectWithoutAQuorum,
    /// Where a quorum acknowledges, who has waited for one with a better log takes its vote as well.
    OutvoteABetterLog,
    /// Where a quorum acknowledges, what members said before they promised to follow nobody counts.
    CountOldVotes,
    /// Where a quorum acknowledges, a longer log is better whatever its last epoch.
    RankByLength,
    /// Where a quorum acknowledges, it does so with what earlier masters wrote (Raft, figure 8).
    ConfirmOldEpochs,
    /// Where a quorum acknowledges, members leave and join although too few others have what it
    /// acknowledged.
    ChangeWithoutTheBytes,
    /// Where a quorum acknowledges, who promised to follow nobody goes on following.
    FollowBehindTheFence,
}

#[cfg(test)]
thread_local! {
    static BUG: std::cell::Cell<Option<Planted>> = const { std::cell::Cell::new(None) };
}

/// Runs `work` with a bug, on this thread.
#[cfg(test)]
pub(crate) fn with<T>(bug: Option<Planted>, work: impl FnOnce() -> T) -> T {
    BUG.set(bug);
    let result = work();
    BUG.set(None);
    result
}

#[cfg(test)]
pub(crate) fn is_on(bug: Planted) -> bool {
    BUG.get() == Some(bug)
}

#[cfg(not(test))]
pub(crate) const fn is_on(_: Planted) -> bool {
    false
}
