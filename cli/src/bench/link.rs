//! One connection of the load: bytes out, frames in.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use weirmq_remoting::frame::{FRAME_BYTES_MAX, Frame, Split, split};

/// A connection with its buffers. Whoever owns it appends requests to `output`, exchanges, and
/// takes the frames that came in.
pub(super) struct Link {
    stream: TcpStream,
    pub(super) output: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    taken: usize,
    filled: usize,
}

/// Connects `count` times, blocking: connecting is not part of what is measured.
pub(super) fn connect(address: &str, count: usize) -> io::Result<Vec<std::net::TcpStream>> {
    let connect = || {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    (0..count).map(|_| connect()).collect()
}

impl Link {
    /// Takes over a connected, non-blocking stream; inside a runtime.
    pub(super) fn new(stream: std::net::TcpStream, input_bytes: usize) -> io::Result<Self> {
        let stream = TcpStream::from_std(stream)?;
        let input = vec![0; input_bytes];
        Ok(Self { stream, output: Vec::new(), sent: 0, input, taken: 0, filled: 0 })
    }

    /// Writes what is in `output` as the socket takes it, until something was read. Losing the
    /// future loses nothing.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the peer closed; whatever the socket says.
    pub(super) async fn exchange(&mut self) -> io::Result<()> {
        self.make_room();
        poll_fn(|context| {
            while self.sent < self.output.len() {
                match Pin::new(&mut self.stream).poll_write(context, &self.output[self.sent..])? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(written) => self.sent += written,
                    Poll::Pending => break,
                }
            }
            if self.sent > 0 && self.sent == self.output.len() {
                self.output.clear();
                self.sent = 0;
            }
            // poll_read, not try_read: it knows that a short read has emptied the socket, which
            // saves a second system call for each round trip.
            let mut buffer = ReadBuf::new(&mut self.input[self.filled..]);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer)? {
                Poll::Ready(()) if buffer.filled().is_empty() => {
                    Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
                }
                Poll::Ready(()) => {
                    self.filled += buffer.filled().len();
                    Poll::Ready(Ok(()))
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// The next whole frame that was read.
    pub(super) fn next_frame(&mut self) -> anyhow::Result<Option<Frame<'_>>> {
        let length = match split(&self.input[self.taken..self.filled], FRAME_BYTES_MAX)? {
            Split::Frame(_, length) => length,
            Split::Need(need) => {
                if need > self.input.len() {
                    self.input.resize(need, 0);
                }
                return Ok(None);
            }
        };
        // Split again, because a borrow that one arm returns would last for the other.
        let whole = &self.input[self.taken..self.taken + length];
        self.taken += length;
        match split(whole, FRAME_BYTES_MAX)? {
            Split::Frame(frame, _) => Ok(Some(frame)),
            Split::Need(_) => Ok(None),
        }
    }

    /// Moves a partial frame to the front when the rest of the buffer got small.
    fn make_room(&mut self) {
        if self.taken == self.filled {
            (self.taken, self.filled) = (0, 0);
        } else if self.taken > 0 && self.filled > self.input.len() / 2 {
            self.input.copy_within(self.taken..self.filled, 0);
            (self.taken, self.filled) = (0, self.filled - self.taken);
        }
    }
}
