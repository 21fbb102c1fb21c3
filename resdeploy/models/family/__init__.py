"""What a ResNet is made of: names and configs enter, modules leave."""
