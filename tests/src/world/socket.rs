//! A UDP socket on the simulated network, and the runtime quinn drives it with.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, UdpPoller};

use super::life::Life;
use super::network::Network;

/// Datagrams held unread; further ones are lost, as a kernel's buffer loses them.
const UNREAD_MAX: usize = 4_096;

/// One open socket.
#[derive(Debug)]
pub(super) struct Socket {
    address: SocketAddr,
    network: Network,
    life: Arc<Life>,
    inbox: Mutex<Inbox>,
}

#[derive(Debug, Default)]
struct Inbox {
    unread: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

impl Socket {
    pub(super) fn new(address: SocketAddr, network: Network, life: Arc<Life>) -> Self {
        Self { address, network, life, inbox: Mutex::default() }
    }

    pub(super) fn take_in(&self, from: SocketAddr, bytes: Vec<u8>) {
        let mut inbox = self.inbox.lock();
        if inbox.unread.len() < UNREAD_MAX {
            inbox.unread.push_back((from, bytes));
        }
        if let Some(reader) = inbox.reader.take() {
            reader.wake();
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if !self.life.is_over() {
            let now = self.life.now();
            self.network.send(now, self.address, transmit.destination, transmit.contents);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox.lock();
        let mut taken = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Some((from, bytes)) = inbox.unread.pop_front() else { break };
            let length = bytes.len().min(buffer.len());
            buffer[..length].copy_from_slice(&bytes[..length]);
            *meta = RecvMeta { addr: from, len: length, stride: length, ecn: None, dst_ip: None };
            taken += 1;
        }
        if taken > 0 {
            return Poll::Ready(Ok(taken));
        }
        inbox.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// Always ready: a full network loses, it does not wait.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Tokio's timers and tasks, which are the life's, and no real sockets.
#[derive(Debug)]
pub(super) struct Runtime;

impl quinn::Runtime for Runtime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        quinn::TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: BoxFuture<'static, ()>) {
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::other("a world has no real sockets"))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}
