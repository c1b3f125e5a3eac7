// One form of each address.
#pragma once

#include <boost/asio/ip/address.hpp>

namespace puna::http {

/// An IPv4 address that is written as an IPv6 one (::ffff:127.0.0.1) as itself; all others as they are.
inline boost::asio::ip::address unmapped(const boost::asio::ip::address& address) {
  namespace ip = boost::asio::ip;
  if (!address.is_v6() || !address.to_v6().is_v4_mapped()) return address;
  return ip::make_address_v4(ip::v4_mapped, address.to_v6());
}

}  // namespace puna::http
