"""What the sides serve and are sent: MiniLM for sentiment with rated sentences, ResNet with photographs."""
