"""Rules of pictures: standing, black, white, empty, exchanged, doubled, turned, of another channel order, cut or blurred."""
