//! Who is at the other end of a replication connection.
//!
//! Whoever could pretend to be a replica could confirm what it does not have (apache/rocketmq
//! #3015), so both sides show that they know the group's secret, over nonces of both. The dialler
//! says hello, the other side answers with its own and a proof, and the dialler proves itself last.
//! The proof is HMAC-SHA-256, keyed with the secret, of the prover's role and both hellos, as they came
//! and not as they were understood: a newer peer's hello has fields that an older one does not know.

use bytes::Bytes;
use ring::hmac;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::frame::{Frame, FrameError, HEAD_BYTES, Hello, STRANGER_BYTES_MAX, contents_bytes};
use super::refusals::Reason;

/// The version of the protocol that this program speaks, and the oldest that it still does.
pub(super) const PROTOCOL: u32 = 2;
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
    #[error(
        "TLS: {0}; each replica needs replication.tls, with a certificate of the same authority"
    )]
    Tls(std::io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What is wrong with the peer, as it is told.
    #[error("{why}")]
    Refused { reason: Reason, why: String },
    #[error("it did not say who it is while others of its address, or many others, connected")]
    Displaced,
    #[error("the peer refuses: {0}")]
    RefusedByPeer(String),
}

impl HandshakeError {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Io(_) | Self::Displaced => Reason::Silent,
            Self::Tls(_) => Reason::Tls,
            Self::Frame(_) => Reason::NoReplica,
            Self::Refused { reason, .. } => *reason,
            Self::RefusedByPeer(_) => Reason::ByPeer,
        }
    }
}

fn refused(reason: Reason, why: String) -> HandshakeError {
    HandshakeError::Refused { reason, why }
}

/// A hello, and the frame that it stands in.
struct Said {
    hello: Hello,
    frame: Vec<u8>,
}

impl Said {
    fn by(own: &Hello) -> Self {
        let mut frame = Vec::new();
        Frame::Hello(own.clone()).encode(&mut frame);
        Self { hello: own.clone(), frame }
    }
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

    fn proof(&self, side: Side, dialler: &Said, listener: &Said) -> Vec<u8> {
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
        dialler: &Said,
        listener: &Said,
        proof: &[u8],
    ) -> Result<(), HandshakeError> {
        let refused = |why: &str| Err(refused(Reason::Secret, why.to_owned()));
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
fn transcript(side: Side, dialler: &Said, listener: &Said) -> Vec<u8> {
    let side: &[u8] = match side {
        Side::Dialler => b"weirmq replication, dialler",
        Side::Listener => b"weirmq replication, listener",
    };
    [side, &dialler.frame, &listener.frame].concat()
}

/// The dialler's part: the other side's hello, once it has proved itself.
pub(super) async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    own: &Hello,
    trust: &Trust,
) -> Result<Hello, HandshakeError> {
    let own = Said::by(own);
    write_bytes(stream, &own.frame).await?;
    let peer = read_hello(stream).await?;
    let proof = read_proof(stream).await?;
    let checked = trust.check(Side::Listener, &own, &peer, &proof);
    let checked = checked.and_then(|()| fits(&own.hello, &peer.hello));
    tell_refusal(stream, checked).await?;
    write(stream, Frame::Proof(trust.proof(Side::Dialler, &own, &peer))).await?;
    Ok(peer.hello)
}

/// The listener's part: the dialler's hello, once it has proved itself.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    own: &Hello,
    trust: &Trust,
) -> Result<Hello, HandshakeError> {
    let own = Said::by(own);
    let peer = read_hello(stream).await?;
    let fit = fits(&own.hello, &peer.hello);
    tell_refusal(stream, fit).await?;
    let mut answer = own.frame.clone();
    Frame::Proof(trust.proof(Side::Listener, &peer, &own)).encode(&mut answer);
    write_bytes(stream, &answer).await?;
    let proof = read_proof(stream).await?;
    let checked = trust.check(Side::Dialler, &peer, &own, &proof);
    tell_refusal(stream, checked).await?;
    Ok(peer.hello)
}

/// Whether these two can replicate each other.
fn fits(own: &Hello, peer: &Hello) -> Result<(), HandshakeError> {
    if peer.protocol < PROTOCOL_MIN || peer.protocol_min > PROTOCOL {
        let why = format!(
            "replication protocols {}..={} and {PROTOCOL_MIN}..={PROTOCOL} have none in common; \
             upgrade one version at a time",
            peer.protocol_min, peer.protocol
        );
        return Err(refused(Reason::Protocol, why));
    }
    if (&own.cluster, &own.group) != (&peer.cluster, &peer.group) {
        let why = format!(
            "group {} of cluster {} is not group {} of cluster {}",
            peer.group, peer.cluster, own.group, own.cluster
        );
        return Err(refused(Reason::OtherGroup, why));
    }
    if own.member.replica == peer.member.replica {
        let replica = own.member.replica.0;
        let why = format!("both are replica {replica}; give each its own broker id");
        return Err(refused(Reason::OwnId, why));
    }
    if own.segment_bytes != peer.segment_bytes {
        let why = format!(
            "log segments of {} and {} bytes; set store.segment_bytes to the same",
            own.segment_bytes, peer.segment_bytes
        );
        return Err(refused(Reason::SegmentLength, why));
    }
    Ok(())
}

/// Tells the peer what is wrong with it, as far as it listens.
async fn tell_refusal<S: AsyncWrite + Unpin>(
    stream: &mut S,
    checked: Result<(), HandshakeError>,
) -> Result<(), HandshakeError> {
    if let Err(HandshakeError::Refused { why, .. }) = &checked {
        let _ = write(stream, Frame::Refused(why.clone())).await;
    }
    checked
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, frame: Frame) -> Result<(), HandshakeError> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    write_bytes(stream, &out).await
}

async fn write_bytes<S: AsyncWrite + Unpin>(
    stream: &mut S,
    bytes: &[u8],
) -> Result<(), HandshakeError> {
    stream.write_all(bytes).await?;
    Ok(stream.flush().await?)
}

async fn read_hello<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Said, HandshakeError> {
    match read(stream).await? {
        (Frame::Hello(hello), frame) => Ok(Said { hello, frame }),
        (other, _) => Err(unexpected(other)),
    }
}

async fn read_proof<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, HandshakeError> {
    match read(stream).await?.0 {
        Frame::Proof(proof) => Ok(proof),
        other => Err(unexpected(other)),
    }
}

fn unexpected(frame: Frame) -> HandshakeError {
    match frame {
        Frame::Refused(why) => HandshakeError::RefusedByPeer(why),
        _ => refused(Reason::NoReplica, "a frame that has no place in a handshake".to_owned()),
    }
}

/// The next frame, and its bytes.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(Frame, Vec<u8>), HandshakeError> {
    let mut frame = vec![0; HEAD_BYTES];
    stream.read_exact(&mut frame).await?;
    let head = frame.first_chunk().copied().unwrap_or_default();
    let (kind, bytes) = contents_bytes(head, STRANGER_BYTES_MAX)?;
    frame.resize(HEAD_BYTES + bytes, 0);
    stream.read_exact(&mut frame[HEAD_BYTES..]).await?;
    let contents = Bytes::copy_from_slice(&frame[HEAD_BYTES..]);
    Ok((Frame::decode(kind, contents)?, frame))
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

    /// A peer of the next version, whose hello says more.
    #[tokio::test]
    async fn a_hello_with_a_field_that_nobody_knows_is_proved_as_it_came() {
        let key = secret("0123456789abcdef");
        let newer = |own: &Hello| {
            let mut json = serde_json::to_value(own).unwrap();
            json["compression"] = "zstd".into();
            let json = json.to_string();
            let mut frame = (json.len() as u32 + 1).to_be_bytes().to_vec();
            // The kind of a hello.
            frame.push(1);
            frame.extend_from_slice(json.as_bytes());
            Said { hello: own.clone(), frame }
        };
        let (own, known) = (newer(&hello(0)), hello(1));
        let (mut here, mut there) = tokio::io::duplex(1 << 16);
        let dialling = async {
            write_bytes(&mut here, &own.frame).await?;
            let peer = read_hello(&mut here).await?;
            let proof = read_proof(&mut here).await?;
            key.check(Side::Listener, &own, &peer, &proof)?;
            write(&mut here, Frame::Proof(key.proof(Side::Dialler, &own, &peer))).await
        };
        let (dialled, accepted) = tokio::join!(dialling, accept(&mut there, &known, &key));
        assert_eq!((dialled.unwrap(), accepted.unwrap()), ((), own.hello));
    }

    #[tokio::test]
    async fn a_proof_cannot_be_shown_again() {
        let (one, two) = (Said::by(&hello(0)), Said::by(&hello(1)));
        let key = secret("0123456789abcdef");
        let proof = key.proof(Side::Dialler, &one, &two);
        assert!(key.check(Side::Dialler, &one, &two, &proof).is_ok());
        let again = Said::by(&Hello { nonce: Uuid::new_v4(), ..two.hello.clone() });
        assert!(key.check(Side::Dialler, &one, &again, &proof).is_err());
        assert!(key.check(Side::Listener, &one, &two, &proof).is_err());
    }
}
