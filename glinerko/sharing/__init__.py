"""What goes out: tables, pages, cards and uploads."""
