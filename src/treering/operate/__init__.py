"""What keeps treering running by itself and hands work to other programs."""
