//! Calibration: the producer's load against a server that only answers.

use std::io;
use std::net::TcpListener;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use weirmq_remoting::ResponseCode;
use weirmq_remoting::SerializeType;
use weirmq_remoting::command::{Head, Language, VERSION, response};

use super::frames::scan;
use super::link::{Link, connect};
use super::options::{Output, Span};
use super::produce::{LoadArgs, closed_loop};
use super::report::Report;
use super::window::{Watch, measure};

const INPUT_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, Args, Serialize)]
pub(super) struct EchoArgs {
    #[command(flatten)]
    span: Span,
    #[command(flatten)]
    load: LoadArgs,
    /// Write headers in the binary form (ROCKETMQ) instead of JSON
    #[arg(long)]
    binary: bool,
    /// Bytes of each answer; brokers answer a send with about so many
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(200..=65_536))]
    reply_bytes: u32,
    #[command(flatten)]
    #[serde(skip)]
    output: Output,
}

pub(super) fn run(args: &EchoArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
    let address = listener.local_addr()?;
    let server = Server {
        serialize: if args.binary { SerializeType::Binary } else { SerializeType::Json },
        reply_bytes: args.reply_bytes as usize,
        connections: args.load.connections,
    };
    let shape = args.load.shape("weir-bench", 4, server.serialize);
    // Not scoped: if connecting fails below, nobody will ever wake it.
    let serving = std::thread::Builder::new()
        .name("echo".to_owned())
        .spawn(move || server.run(&listener))
        .context("start the server's thread")?;
    let streams = connect(&address.to_string(), args.load.connections as usize)?;
    let (tally, usage) = measure(&args.span, Watch::default(), |window| {
        closed_loop(window, &args.load, shape, streams, None)
    })?;
    serving.join().map_err(|_| anyhow::anyhow!("the server's thread panicked"))??;
    let mut report = Report::new("echo", args, &tally.errors, usage)?;
    report.messages(tally.measured, &args.load, tally.window.length());
    report.latency = Some(tally.latencies.summary());
    report.finish(args.output.output)
}

/// Answers every request on a runtime of one thread, until all its connections were closed.
struct Server {
    serialize: SerializeType,
    reply_bytes: usize,
    connections: u32,
}

impl Server {
    fn run(&self, listener: &TcpListener) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut tasks = Vec::new();
            for _ in 0..self.connections {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let link = Link::new(stream, INPUT_BYTES)?;
                tasks.push(tokio::task::spawn_local(answer(link, self.reply())));
            }
            for task in tasks {
                task.await??;
            }
            Ok(())
        })
    }

    /// A success of the wanted size, with a mark where the opaque has to be.
    fn reply(&self) -> Reply {
        let head = |opaque| Head {
            serialize: self.serialize,
            code: 0,
            language: Language::JAVA,
            version: VERSION,
            opaque,
            flag: 0,
        };
        let mut bytes = Vec::new();
        let render = |bytes: &mut Vec<u8>, opaque, fill: usize| {
            bytes.clear();
            let mut writer = response(bytes, &head(opaque), ResponseCode::Success, None);
            writer.ascii("msgId", |out| out.resize(out.len() + fill, b'0'));
            writer.finish(&[]);
        };
        render(&mut bytes, MARK, 0);
        let fill = self.reply_bytes.saturating_sub(bytes.len());
        render(&mut bytes, MARK, fill);
        let digits = match self.serialize {
            SerializeType::Json => MARK.to_string().into_bytes(),
            SerializeType::Binary => MARK.to_be_bytes().to_vec(),
        };
        let at = bytes.windows(digits.len()).position(|window| window == digits).unwrap_or(0);
        Reply { bytes, at, serialize: self.serialize }
    }
}

const MARK: i32 = 1_987_654_321;

struct Reply {
    bytes: Vec<u8>,
    at: usize,
    serialize: SerializeType,
}

async fn answer(mut link: Link, reply: Reply) -> anyhow::Result<()> {
    let mut opaques = Vec::new();
    loop {
        match link.exchange().await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        while let Some(frame) = link.next_frame()? {
            opaques.push(scan(&frame).context("read a request's opaque")?.opaque);
        }
        for opaque in opaques.drain(..) {
            reply.append_to(&mut link.output, opaque);
        }
    }
}

impl Reply {
    fn append_to(&self, out: &mut Vec<u8>, opaque: i32) {
        let at = out.len() + self.at;
        out.extend_from_slice(&self.bytes);
        match self.serialize {
            SerializeType::Json => {
                super::frames::write_decimal(&mut out[at..at + 10], opaque as u64)
            }
            SerializeType::Binary => out[at..at + 4].copy_from_slice(&opaque.to_be_bytes()),
        }
    }
}
