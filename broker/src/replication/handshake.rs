//! Who is at the other end of a replication connection.
//!
//! Whoever could pretend to be a replica could confirm what it does not have (apache/rocketmq
//! #3015), so both sides show that they know the group's secret, over nonces of both. The dialler
//! says hello, the other side answers with its own and a proof, and the dialler proves itself last.
//! The proof is HMAC-SHA-256, keyed with the secret, of the prover's role and both hellos.

use ring::hmac;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::frame::{Frame, FrameError, HEAD_BYTES, Hello, STRANGER_BYTES_MAX, contents_bytes};

/// The version of the protocol that this program speaks, and the oldest that it still does.
pub(super) const PROTOCOL: u32 = 1;
pub(super) const PROTOCOL_MIN: u32 = 1;

/// How replicas know each other.
#[derive(Clone)]
pub(crate) enum Trust {
    /// By this key.
    Secret(hmac::Key),
    /// Everybody who reaches the port is believed.
    Anybody,
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What is wrong with the peer, as it is told.
    #[error("{0}")]
    Refused(String),
    #[error("the peer refuses: {0}")]
    RefusedByPeer(String),
}

#[derive(Clone, Copy)]
enum Side {
    Dialler,
    Listener,
}

impl Trust {
    /// # Errors
    /// A secret too short to be one.
    pub(crate) fn of_secret(secret: &[u8]) -> Result<Self, String> {
        let secret = secret.trim_ascii();
        if secret.len() < 16 {
            return Err(format!("the secret has {} bytes, give it at least 16", secret.len()));
        }
        Ok(Self::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    fn proof(&self, side: Side, dialler: &Hello, listener: &Hello) -> Vec<u8> {
        match self {
            Self::Secret(key) => {
                hmac::sign(key, &transcript(side, dialler, listener)).as_ref().to_vec()
            }
            Self::Anybody => Vec::new(),
        }
    }

    fn check(
        &self,
        side: Side,
        dialler: &Hello,
        listener: &Hello,
        proof: &[u8],
    ) -> Result<(), HandshakeError> {
        let refused = |why: &str| Err(HandshakeError::Refused(why.to_owned()));
        match self {
            Self::Secret(_) if proof.is_empty() => {
                refused("no proof of the group's secret; set replication.secret_file at both ends")
            }
            Self::Secret(key) => {
                let said = transcript(side, dialler, listener);
                match hmac::verify(key, &said, proof) {
                    Ok(()) => Ok(()),
                    Err(_) => refused("the secrets of the two replicas differ"),
                }
            }
            Self::Anybody if proof.is_empty() => Ok(()),
            Self::Anybody => {
                refused("one of the two has replication.secret_file, the other is insecure")
            }
        }
    }
}

/// What is signed. Each hello is framed, so its end is known.
fn transcript(side: Side, dialler: &Hello, listener: &Hello) -> Vec<u8> {
    let mut said = match side {
        Side::Dialler => b"weirmq replication, dialler".to_vec(),
        Side::Listener => b"weirmq replication, listener".to_vec(),
    };
    Frame::Hello(dialler.clone()).encode(&mut said);
    Frame::Hello(listener.clone()).encode(&mut said);
    said
}

/// The dialler's part: the other side's hello, once it has proved itself.
pub(super) async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    own: &Hello,
    trust: &Trust,
) -> Result<Hello, HandshakeError> {
    write(stream, &[Frame::Hello(own.clone())]).await?;
    let peer = read_hello(stream).await?;
    let proof = read_proof(stream).await?;
    let checked = trust.check(Side::Listener, own, &peer, &proof).and_then(|()| fits(own, &peer));
    tell_refusal(stream, checked).await?;
    write(stream, &[Frame::Proof(trust.proof(Side::Dialler, own, &peer))]).await?;
    Ok(peer)
}

/// The listener's part: the dialler's hello, once it has proved itself.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    own: &Hello,
    trust: &Trust,
) -> Result<Hello, HandshakeError> {
    let peer = read_hello(stream).await?;
    let fit = fits(own, &peer);
    tell_refusal(stream, fit).await?;
    let proof = Frame::Proof(trust.proof(Side::Listener, &peer, own));
    write(stream, &[Frame::Hello(own.clone()), proof]).await?;
    let proof = read_proof(stream).await?;
    let checked = trust.check(Side::Dialler, &peer, own, &proof);
    tell_refusal(stream, checked).await?;
    Ok(peer)
}

/// Whether these two can replicate each other.
fn fits(own: &Hello, peer: &Hello) -> Result<(), HandshakeError> {
    let refused = |why: String| Err(HandshakeError::Refused(why));
    if peer.protocol < PROTOCOL_MIN || peer.protocol_min > PROTOCOL {
        return refused(format!(
            "replication protocols {}..={} and {PROTOCOL_MIN}..={PROTOCOL} have none in common; \
             upgrade one version at a time",
            peer.protocol_min, peer.protocol
        ));
    }
    if (&own.cluster, &own.group) != (&peer.cluster, &peer.group) {
        return refused(format!(
            "group {} of cluster {} is not group {} of cluster {}",
            peer.group, peer.cluster, own.group, own.cluster
        ));
    }
    if own.member.replica == peer.member.replica {
        let replica = own.member.replica.0;
        return refused(format!("both are replica {replica}; give each its own broker id"));
    }
    if own.segment_bytes != peer.segment_bytes {
        return refused(format!(
            "log segments of {} and {} bytes; set store.segment_bytes to the same",
            own.segment_bytes, peer.segment_bytes
        ));
    }
    Ok(())
}

/// Tells the peer what is wrong with it, as far as it listens.
async fn tell_refusal<S: AsyncWrite + Unpin>(
    stream: &mut S,
    checked: Result<(), HandshakeError>,
) -> Result<(), HandshakeError> {
    if let Err(HandshakeError::Refused(why)) = &checked {
        let _ = write(stream, &[Frame::Refused(why.clone())]).await;
    }
    checked
}

async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    frames: &[Frame],
) -> Result<(), HandshakeError> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut out));
    stream.write_all(&out).await?;
    Ok(stream.flush().await?)
}

async fn read_hello<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Hello, HandshakeError> {
    match read(stream).await? {
        Frame::Hello(hello) => Ok(hello),
        other => Err(unexpected(other)),
    }
}

async fn read_proof<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, HandshakeError> {
    match read(stream).await? {
        Frame::Proof(proof) => Ok(proof),
        other => Err(unexpected(other)),
    }
}

fn unexpected(frame: Frame) -> HandshakeError {
    match frame {
        Frame::Refused(why) => HandshakeError::RefusedByPeer(why),
        _ => HandshakeError::Refused("a frame that has no place in a handshake".to_owned()),
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Frame, HandshakeError> {
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let (kind, bytes) = contents_bytes(head, STRANGER_BYTES_MAX)?;
    let mut contents = vec![0; bytes];
    stream.read_exact(&mut contents).await?;
    Ok(Frame::decode(kind, contents.into())?)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use weirmq_authority::{Incarnation, Member, ReplicaId};

    use super::*;

    fn hello(replica: u32) -> Hello {
        Hello {
            protocol: PROTOCOL,
            protocol_min: PROTOCOL_MIN,
            cluster: "c".into(),
            group: "g".into(),
            member: Member { replica: ReplicaId(replica), incarnation: Incarnation(7) },
            segment_bytes: 1 << 30,
            nonce: Uuid::new_v4(),
            address: String::new(),
        }
    }

    fn secret(text: &str) -> Trust {
        Trust::of_secret(text.as_bytes()).unwrap()
    }

    async fn meet(dialler: (Hello, Trust), listener: (Hello, Trust)) -> [Result<Hello, String>; 2] {
        let (mut here, mut there) = tokio::io::duplex(1 << 16);
        let (dialled, accepted) = tokio::join!(
            dial(&mut here, &dialler.0, &dialler.1),
            accept(&mut there, &listener.0, &listener.1),
        );
        [dialled.map_err(|error| error.to_string()), accepted.map_err(|error| error.to_string())]
    }

    #[tokio::test]
    async fn those_who_share_a_secret_meet() {
        let (one, two) = (hello(0), hello(1));
        let met = meet(
            (one.clone(), secret("0123456789abcdef")),
            (two.clone(), secret("0123456789abcdef\n")),
        );
        assert_eq!(met.await, [Ok(two.clone()), Ok(one.clone())]);
        let met = meet((one.clone(), Trust::Anybody), (two.clone(), Trust::Anybody)).await;
        assert_eq!(met, [Ok(two), Ok(one)]);
    }

    #[tokio::test]
    async fn others_are_refused_and_told_why() {
        let key = || secret("0123456789abcdef");
        let other_key = || secret("fedcba9876543210");
        let refusals = [
            ((hello(0), key()), (hello(1), other_key()), "the secrets of the two"),
            ((hello(0), key()), (hello(1), Trust::Anybody), "replication.secret_file"),
            ((hello(0), Trust::Anybody), (hello(1), key()), "replication.secret_file"),
            ((hello(1), key()), (hello(1), key()), "both are replica 1"),
            ((Hello { group: "h".into(), ..hello(0) }, key()), (hello(1), key()), "group h of"),
            ((Hello { segment_bytes: 8192, ..hello(0) }, key()), (hello(1), key()), "8192"),
            (
                (Hello { protocol: 9, protocol_min: 9, ..hello(0) }, key()),
                (hello(1), key()),
                "9..=9",
            ),
        ];
        for (dialler, listener, why) in refusals {
            let met = meet(dialler, listener).await;
            let told: Vec<_> = met.iter().filter_map(|end| end.as_ref().err()).collect();
            assert!(!told.is_empty() && told.iter().any(|told| told.contains(why)), "{met:?}");
        }
        assert!(Trust::of_secret(b"short").is_err());
    }

    #[tokio::test]
    async fn a_proof_cannot_be_shown_again() {
        let (one, two) = (hello(0), hello(1));
        let key = secret("0123456789abcdef");
        let proof = key.proof(Side::Dialler, &one, &two);
        assert!(key.check(Side::Dialler, &one, &two, &proof).is_ok());
        let again = Hello { nonce: Uuid::new_v4(), ..two.clone() };
        assert!(key.check(Side::Dialler, &one, &again, &proof).is_err());
        assert!(key.check(Side::Listener, &one, &two, &proof).is_err());
    }
}
