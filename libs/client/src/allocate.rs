//! Sharing the queues of a topic among the members of a group.

/// The share of `member`: a run of neighbouring queues, the first members getting one more when
/// it does not come out even; empty for a stranger.
///
/// All members have to see `queues` and `members` sorted alike, because each works out its share
/// on its own. Source: `AllocateMessageQueueAveragely`.
pub(crate) fn average<'q, Q>(queues: &'q [Q], members: &[String], member: &str) -> &'q [Q] {
    let Some(index) = members.iter().position(|known| known == member) else { return &[] };
    let remainder = queues.len() % members.len();
    let share = queues.len() / members.len();
    let (start, length) = if index < remainder {
        (index * (share + 1), share + 1)
    } else {
        (index * share + remainder, share)
    };
    &queues[start..start + length]
}

#[cfg(test)]
mod tests {
    use super::average;

    fn shares(queues: usize, members: usize) -> Vec<Vec<usize>> {
        let queues: Vec<_> = (0..queues).collect();
        let members: Vec<_> = (0..members).map(|member| format!("m{member:02}")).collect();
        members.iter().map(|member| average(&queues, &members, member).to_vec()).collect()
    }

    #[test]
    fn the_first_members_get_one_more() {
        assert_eq!(shares(8, 3), [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7]]);
        assert_eq!(shares(2, 3), [vec![0], vec![1], vec![]]);
        assert_eq!(shares(4, 1), [vec![0, 1, 2, 3]]);
    }

    #[test]
    fn every_queue_has_exactly_one_member() {
        for queues in 0..20 {
            for members in 1..20 {
                let all = shares(queues, members).concat();
                assert_eq!(all, (0..queues).collect::<Vec<_>>(), "{queues} over {members}");
            }
        }
    }

    #[test]
    fn a_stranger_gets_nothing() {
        assert!(average(&[1, 2], &["a".to_owned()], "b").is_empty());
        assert!(average(&[1, 2], &[], "b").is_empty());
    }
}
