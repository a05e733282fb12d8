//! The TCP connection beneath TLS. Its kernel asks the other end again and again whether it is still
//! there: a server whose host is gone says nothing, and so does one that holds a question.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Timeout};

/// How long the other end may be silent before it is asked whether it is there.
const SILENT: Duration = Duration::from_secs(2);

/// How often it is asked from then on.
const ASKED: Duration = Duration::from_secs(1);

/// How long it may leave anything unacknowledged, our asking included, before it is given up: beside a
/// pause before the next attempt, less than the 5 s in which a waiter is to ask again (contract §8).
const GONE: Duration = Duration::from_secs(4);

/// Connects, or gives up after so long: there may be another server that can be reached.
#[derive(Debug)]
pub(crate) struct Reach(pub(crate) Duration);

impl Connector<()> for Reach {
    type Out = Wire;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Wire>, Error> {
        let left = self.0.min(*details.timeout.after);
        let addresses = u32::try_from(details.addrs.len()).unwrap_or(u32::MAX).max(1);
        let mut failed = Error::HostNotFound;
        for address in &details.addrs {
            match open(address, left / addresses) {
                Ok(stream) => {
                    let config = details.config;
                    let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
                    return Ok(Some(Wire { stream, buffers }));
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    failed = Error::Timeout(Timeout::Connect);
                }
                Err(error) => failed = error.into(),
            }
        }
        Err(failed)
    }
}

fn open(address: &SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, within)?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    // Not every sandbox knows these. There the limit of an answer is what is left.
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENT).with_interval(ASKED));
    let _ = socket.set_tcp_user_timeout(Some(GONE));
    Ok(stream)
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.set_write_timeout(left(timeout)?)?;
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output).map_err(|error| late(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.set_read_timeout(left(timeout)?)?;
        loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(read) => {
                    self.buffers.input_appended(read);
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(late(error, timeout)),
            }
        }
    }

    /// Whether another question may be sent: nothing is to be read that nobody asked for, and no end.
    fn is_open(&mut self) -> bool {
        let peeked = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut [0]));
        let blocks = self.stream.set_nonblocking(false).is_ok();
        blocks && peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

/// How long the next step may take.
fn left(timeout: NextTimeout) -> Result<Option<Duration>, Error> {
    if timeout.after.is_zero() {
        return Err(Error::Timeout(timeout.reason));
    }
    Ok(timeout.not_zero().map(|left| *left))
}

/// A socket's own time-out says that nothing is to be read yet.
fn late(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_is_not_acknowledged_for_4_s_ends_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = open(&listener.local_addr().unwrap(), Duration::from_secs(10)).unwrap();
        let socket = SockRef::from(&stream);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(GONE));
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), SILENT);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), ASKED);
    }
}
