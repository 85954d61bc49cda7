//! Whether the addresses of a service that is about to start are free.

use std::io::ErrorKind;
use std::net::TcpListener;

use crate::config::Listen;
use crate::service::error::ServiceError;

/// Tries to bind each address as the gateway would. What is not "in use" is the gateway's own to report.
///
/// # Errors
/// Kind Refused when another program listens there.
pub(super) fn check(listen: &[Listen]) -> Result<(), ServiceError> {
    for one in listen {
        if let Listen::Tcp(address) = one
            && let Err(error) = TcpListener::bind(address)
            && error.kind() == ErrorKind::AddrInUse
        {
            return Err(ServiceError::refused(format!("{address} is taken by another program; nothing was changed")).next(format!(
                "ss -ltnp 'sport = :{}'   (who it is)\ngatewayctl install --listen ADDRESS …   (another address)",
                address.port()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_is_refused_and_a_free_one_is_not() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = [Listen::Tcp(taken.local_addr().unwrap())];
        assert_eq!(check(&listen).unwrap_err().kind, crate::service::error::Kind::Refused);
        drop(taken);
        check(&listen).unwrap();
    }
}
