"""How the gateway hears of its fleet: the signed kill list, polled from a file or an address."""
