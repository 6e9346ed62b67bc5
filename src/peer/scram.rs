//! A connection on which a PostgreSQL server must prove itself by SCRAM.
//!
//! In SCRAM the server proves, too, that it knows the password. tokio-postgres checks that proof, but leaves it to the
//! server whether there is one: a stranger could ask for the password itself, or let us in without any. Its first
//! message is therefore looked at before tokio-postgres sees it. (What follows is forced: after a SCRAM offer
//! tokio-postgres accepts nothing but SCRAM.) Without TLS, whoever sits in the middle of a connection to the right
//! server can still change what it says.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Kind byte, length, kind of authentication.
const HEAD: usize = 9;
/// "SASL": the server offers SCRAM.
const SASL: [u8; 4] = 10_u32.to_be_bytes();

/// The error of a server that asks for something else than SCRAM.
pub(super) const NO_PROOF: io::ErrorKind = io::ErrorKind::PermissionDenied;

/// The connection.
#[derive(Debug)]
pub(super) struct ScramOnly {
    stream: TcpStream,
    head: [u8; HEAD],
    read: usize,
    given: usize,
}

impl ScramOnly {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            head: [0; HEAD],
            read: 0,
            given: 0,
        }
    }

    /// Whether the first message is one that may be passed on; `None`: not enough of it is there.
    fn judge(&self) -> Option<io::Result<()>> {
        let refused = |kind, why| Some(Err(io::Error::new(kind, why)));
        match (self.read, self.head[0], &self.head[5..]) {
            (0, ..) => None,
            // It turns us away, and says why.
            (_, b'E', _) => Some(Ok(())),
            (HEAD, b'R', kind) if *kind == SASL => Some(Ok(())),
            (HEAD, b'R', [0, 0, 0, 0]) => refused(
                NO_PROOF,
                "it lets us in without a password, so it does not prove that it is ours",
            ),
            (HEAD, b'R', _) => refused(
                NO_PROOF,
                "it does not ask for the password by SCRAM, so it does not prove that it is ours",
            ),
            (_, b'R', _) => None,
            _ => refused(io::ErrorKind::InvalidData, "this is not PostgreSQL"),
        }
    }
}

impl AsyncRead for ScramOnly {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match this.judge() {
                Some(Ok(())) => break,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => {}
            }
            let mut head = ReadBuf::new(&mut this.head[this.read..]);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut head))?;
            match head.filled().len() {
                // The end: nothing of a half message is passed on.
                0 => return Poll::Ready(Ok(())),
                more => this.read += more,
            }
        }
        if this.given < this.read {
            let rest = &this.head[this.given..this.read];
            let more = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..more]);
            this.given += more;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ScramOnly {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
