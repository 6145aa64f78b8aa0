//! Many small questions on one connection, several at a time: for topics by the ten thousand.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use weirmq_remoting::command::{HeaderWriter, request};
use weirmq_remoting::frame::{FRAME_BYTES_MAX, Split, split};
use weirmq_remoting::{Code, Command, RequestCode, ResponseCode, SerializeType};

const PATIENCE: Duration = Duration::from_secs(60);
const INPUT_BYTES: usize = 64 * 1024;

/// Asks questions 0 to `count`, at most `in_flight` at a time and none after `until`. Answers how
/// many were asked; all of those were answered with success.
///
/// `encode` writes the header of one question, `read` takes its answer; answers may come in any
/// order.
pub(super) fn ask_all(
    address: &str,
    code: RequestCode,
    (count, in_flight): (u32, u32),
    until: Instant,
    mut encode: impl FnMut(u32, &mut HeaderWriter<'_>),
    mut read: impl FnMut(u32, &Command<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<u32> {
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut asked, mut answered) = (0, 0);
    let mut output = Vec::new();
    let mut input = vec![0; INPUT_BYTES];
    let mut filled = 0;
    loop {
        output.clear();
        while asked < count && asked - answered < in_flight && Instant::now() < until {
            let number = code.number();
            let mut writer = request(&mut output, SerializeType::Json, number, asked as i32, false);
            encode(asked, &mut writer);
            writer.finish(&[]);
            asked += 1;
        }
        if asked == answered {
            return Ok(asked);
        }
        stream.write_all(&output).with_context(|| format!("ask {}", code.name()))?;
        let got = stream
            .read(&mut input[filled..])
            .with_context(|| format!("wait for the answer to {}", code.name()))?;
        if got == 0 {
            bail!("connection closed during {}", code.name());
        }
        filled += got;
        let mut taken = 0;
        loop {
            match split(&input[taken..filled], FRAME_BYTES_MAX)? {
                Split::Need(need) => {
                    input.copy_within(taken..filled, 0);
                    filled -= taken;
                    // Room for the frame that is on its way, and always for one more byte.
                    input.resize(need.max(filled + 1).max(INPUT_BYTES), 0);
                    break;
                }
                Split::Frame(frame, length) => {
                    taken += length;
                    let answer = Command::decode(&frame)?;
                    // Brokers also ask their clients.
                    if !answer.head.is_response() {
                        continue;
                    }
                    let question = answer.head.opaque as u32;
                    if answer.head.code != ResponseCode::Success.number() {
                        bail!(
                            "{} number {question} was answered with {}: {}",
                            code.name(),
                            Code::<ResponseCode>::from(answer.head.code),
                            answer.remark_text()
                        );
                    }
                    read(question, &answer)?;
                    answered += 1;
                }
            }
        }
    }
}
