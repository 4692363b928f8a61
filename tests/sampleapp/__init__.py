"""An installed app whose tasks the tests enqueue."""
